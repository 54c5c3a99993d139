package docker

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tulle/internal/regularfile"
)

// UnitDirs are where systemd looks for units, the first first (systemd.unit(5)).
func UnitDirs() []string {
	return []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}
}

const unitName = "docker.service"

// PlannedDaemon reads how systemd will start Docker: nil if it has no unit for that. A drop-in of the name ignored
// does not count. Of systemd's language it knows what units of Docker's are written in.
func PlannedDaemon(dirs []string, ignored string) (*Daemon, error) {
	dropIns := map[string]string{} // the first of a name hides the others
	var main string
	for _, dir := range dirs {
		path := filepath.Join(dir, unitName)
		if _, err := os.Stat(path); err == nil {
			main = cmp.Or(main, path)
		}
		paths, err := filepath.Glob(filepath.Join(path+".d", "*.conf"))
		if err != nil {
			return nil, fmt.Errorf("find unit of docker: %w", err)
		}
		for _, path := range paths {
			name := filepath.Base(path)
			dropIns[name] = cmp.Or(dropIns[name], path)
		}
	}
	if main == "" {
		return nil, nil
	}
	delete(dropIns, ignored)
	u := unit{}
	for _, path := range append([]string{main}, sortedValues(dropIns)...) {
		if err := u.read(path); err != nil {
			return nil, fmt.Errorf("read unit of docker: %w", err)
		}
	}
	line, err := u.commandLine()
	if err != nil {
		return nil, fmt.Errorf("read unit of docker: %w", err)
	}
	if len(line) == 0 {
		return nil, nil
	}
	return &Daemon{Unit: u.source, Program: strings.TrimLeft(line[0], "-@:+!"), Args: line[1:]}, nil
}

func sortedValues(m map[string]string) []string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		list = append(list, m[key])
	}
	return list
}

// unit is what matters of a unit and its drop-ins.
type unit struct {
	source             string // the file that has the command line
	start              string
	settings, envFiles []string
}

func (u *unit) read(path string) error {
	if target, err := filepath.EvalSymlinks(path); err == nil && target == os.DevNull {
		return nil // masked (systemctl(1))
	}
	text, err := regularfile.ReadTarget(path, maxFile)
	if err != nil {
		return err
	}
	section := ""
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch {
		case strings.HasPrefix(line, "["):
			section = line
		case section != "[Service]" || !ok:
		case key == "ExecStart":
			u.start, u.source = value, path
		case key == "Environment" && value == "":
			u.settings = nil
		case key == "Environment":
			u.settings = append(u.settings, words(value)...)
		case key == "EnvironmentFile" && value == "":
			u.envFiles = nil
		case key == "EnvironmentFile":
			u.envFiles = append(u.envFiles, value)
		}
	}
	return nil
}

// commandLine puts the variables in: a word that is one becomes the words of its value, one in a word stays in it.
func (u *unit) commandLine() ([]string, error) {
	env := map[string]string{}
	set := func(setting string) {
		if name, value, ok := strings.Cut(setting, "="); ok {
			env[strings.TrimSpace(name)] = value
		}
	}
	for _, setting := range u.settings {
		set(setting)
	}
	for _, path := range u.envFiles {
		path, optional := strings.CutPrefix(path, "-")
		text, err := regularfile.ReadTarget(path, maxFile)
		// One that is missing is made before Docker starts, as /run/flannel/subnet.env is.
		if err != nil && !optional && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if name, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ";") {
				set(name + "=" + strings.Trim(value, `"'`))
			}
		}
	}
	var line []string
	for _, word := range words(u.start) {
		if name, ok := strings.CutPrefix(word, "$"); ok && !strings.HasPrefix(name, "{") {
			line = append(line, words(env[name])...)
			continue
		}
		for name, value := range env {
			word = strings.ReplaceAll(word, "${"+name+"}", value)
		}
		line = append(line, word)
	}
	return line, nil
}

// words splits a line at white space outside of quotes, which go.
func words(line string) []string {
	var list []string
	var word strings.Builder
	var quote rune
	inside := false
	for _, r := range line + " " {
		switch space := strings.ContainsRune(" \t\n", r); {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, inside = r, true
		case quote == 0 && space && inside:
			list = append(list, word.String())
			word.Reset()
			inside = false
		case quote == 0 && space:
		default:
			word.WriteRune(r)
			inside = true
		}
	}
	return list
}
