// Package chaos breaks real parts of a running network, one after another, and measures what the containers' traffic notices.
//
// Each fault is a script in testdata, which says what may be lost and how soon all must be as before. One lab serves them
// all: five hosts with the real daemon and an etcd of three members, with a stream of packets from every host to every other.
package chaos
