// Package fastpath lets packets of flows that have been seen to pass bridge, IP stack and netfilter unchanged skip these: the door to BPF.
//
// Four programs on the uplinks and on the links of containers tag packets before the stack and admit their flows behind it; what may go fast, how peers are
// reached and where the programs hang is wanted state, compared with what is once a second and whenever the kernel notifies of changes.
package fastpath

//go:generate go tool bpf2go -target bpfel,bpfeb -cc clang -strip llvm-strip -type setting -type peer -type prefix -type place -type flow -type admission -type count programs bpf/fastpath.c -- -O2 -Wall -Werror -I/usr/include/x86_64-linux-gnu
