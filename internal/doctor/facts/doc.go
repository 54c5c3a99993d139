// Package facts gathers what a host says of itself for the doctor. It reads, executes no program and changes nothing.
package facts
