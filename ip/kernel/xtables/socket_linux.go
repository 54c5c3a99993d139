package xtables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"tulle/ip"
)

// Socket options (IPT_BASE_CTL and IP6T_BASE_CTL are the same).
const (
	optionReplace     = 64 // to set
	optionAddCounters = 65
	optionInfo        = 64 // to get
	optionEntries     = 65
)

// Sizes and offsets of the structures that go with them, on a 64-bit kernel, in bytes.
const (
	nameSize      = 32
	infoSize      = 84 // struct ipt_getinfo
	entriesHeader = 40 // struct ipt_get_entries, xt_counters_info
	replaceHeader = 96 // struct ipt_replace
	counterSize   = 16 // struct xt_counters
)

// readAttempts bounds how often a table is read again because it changed meanwhile.
const readAttempts = 10

// Names lists the tables of family f that exist in the network namespace of the calling thread.
func Names(f ip.Family) ([]string, error) {
	if strconv.IntSize != 64 {
		return nil, nil
	}
	file := "ip_tables_names"
	if f == ip.IPv6 {
		file = "ip6_tables_names"
	}
	text, err := os.ReadFile("/proc/thread-self/net/" + file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return strings.Fields(string(text)), err
}

// Socket gives access to the tables of one family in one network namespace.
type Socket struct {
	fd     int
	family ip.Family
	level  int
}

// Dial opens a socket in the network namespace of the calling thread.
func Dial(f ip.Family) (*Socket, error) {
	s := &Socket{family: f, level: unix.SOL_IP}
	domain := unix.AF_INET
	if f == ip.IPv6 {
		s.level, domain = unix.SOL_IPV6, unix.AF_INET6
	}
	// Any socket of the family will do; this kind needs no capability of its own.
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	s.fd = fd
	return s, err
}

// Close closes the socket.
func (s *Socket) Close() error { return unix.Close(s.fd) }

// Read reads a table that exists.
func (s *Socket) Read(name string) (*Table, error) {
	for attempt := 1; ; attempt++ {
		b, err := s.read(name)
		if errors.Is(err, unix.EAGAIN) && attempt < readAttempts {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read table %s: %w", name, err)
		}
		return parse(s.family, name, b)
	}
}

func (s *Socket) read(name string) (block, error) {
	info := make([]byte, infoSize)
	copy(info, name)
	if err := s.get(optionInfo, info); err != nil {
		return block{}, err
	}
	words := info[nameSize:]
	word := func(i int) uint32 { return binary.NativeEndian.Uint32(words[4*i:]) }
	b := block{validHooks: word(0), entries: int(word(1 + 2*hooks))}
	for h := range hooks {
		b.hooks[h], b.underflow[h] = word(1+h), word(1+hooks+h)
	}
	size := word(2 + 2*hooks)
	answer := make([]byte, entriesHeader+int(size))
	copy(answer, name)
	binary.NativeEndian.PutUint32(answer[nameSize:], size)
	if err := s.get(optionEntries, answer); err != nil {
		return block{}, err
	}
	b.data = answer[entriesHeader:]
	return b, nil
}

// Replace puts t in the place of the table that it was read from. If that has changed meanwhile, the error is EAGAIN as
// far as the kernel notices; hold the lock to be sure.
func (s *Socket) Replace(t *Table) error {
	b := t.render()
	counters := make([]byte, counterSize*t.entries)
	request := make([]byte, replaceHeader, replaceHeader+len(b.data))
	copy(request, t.Name)
	words := request[nameSize:]
	put := func(i int, v uint32) { binary.NativeEndian.PutUint32(words[4*i:], v) }
	put(0, b.validHooks)
	put(1, uint32(b.entries))
	put(2, uint32(len(b.data)))
	for h := range hooks {
		put(3+h, b.hooks[h])
		put(3+hooks+h, b.underflow[h])
	}
	put(3+2*hooks, uint32(t.entries))
	binary.NativeEndian.PutUint64(request[replaceHeader-8:], uint64(uintptr(unsafe.Pointer(unsafe.SliceData(counters)))))
	// The kernel writes the counters of the old table to a place that only the request knows.
	var pin runtime.Pinner
	pin.Pin(unsafe.SliceData(counters))
	defer pin.Unpin()
	if err := s.set(optionReplace, append(request, b.data...)); err != nil {
		return fmt.Errorf("replace table %s: %w", t.Name, err)
	}
	return s.addCounters(t, counters)
}

// addCounters gives the entries of the new table what those of the old had counted.
func (s *Socket) addCounters(t *Table, old []byte) error {
	all := t.all()
	request := make([]byte, entriesHeader, entriesHeader+counterSize*len(all))
	copy(request, t.Name)
	binary.NativeEndian.PutUint32(request[nameSize:], uint32(len(all)))
	for _, e := range all {
		counter := make([]byte, counterSize)
		if e.origin >= 0 {
			copy(counter, old[counterSize*e.origin:])
		}
		request = append(request, counter...)
	}
	if err := s.set(optionAddCounters, request); err != nil {
		return fmt.Errorf("add counters to table %s: %w", t.Name, err)
	}
	return nil
}

func (s *Socket) get(option int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), uintptr(s.level), uintptr(option),
		uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func (s *Socket) set(option int, b []byte) error {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(s.fd), uintptr(s.level), uintptr(option),
		uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
