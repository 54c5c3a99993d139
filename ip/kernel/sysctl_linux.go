package kernel

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"tulle/ip"
)

// sysctlRoot shows each thread the settings of the network namespace that it is in.
const sysctlRoot = "/proc/sys/"

func writeSysctl(s ip.Sysctl) error {
	file, err := os.OpenFile(sysctlRoot+s.Key, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(s.Value)
	return errors.Join(err, file.Close())
}

// readSysctls reads the settings in scope; those of links that do not exist are absent.
func (rd *reading) readSysctls() error {
	for _, s := range rd.scope.Settings(rd.Interfaces) {
		value, err := os.ReadFile(sysctlRoot + s.Key)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		s.Value = strings.TrimSpace(string(value))
		rd.Owned.Sysctls = append(rd.Owned.Sysctls, s)
		if unix.Faccessat(unix.AT_FDCWD, sysctlRoot+s.Key, unix.W_OK, unix.AT_EACCESS) != nil {
			if rd.Fixed == nil {
				rd.Fixed = map[string]bool{}
			}
			rd.Fixed[s.Key] = true
		}
	}
	return nil
}
