// Package traffic makes what crosses the path between two hosts while it is measured. An [End] at either side does what it is told, one order at
// a time, over a pipe or a connection.
package traffic
