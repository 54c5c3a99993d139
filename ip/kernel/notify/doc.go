// Package notify receives what the kernel tells by netlink, and lets it come together.
package notify
