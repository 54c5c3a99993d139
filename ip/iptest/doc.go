// Package iptest has an ip.Kernel in memory, and the suite that every ip.Kernel passes.
package iptest
