// Package far has the facts of another host: what they are asked by, and answered with, through the store.
package far
