//go:build !linux

package main

func tryBPF([]string) bool { return false }

func bpfForbidden() error { return nil }
