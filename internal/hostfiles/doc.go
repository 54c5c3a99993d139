// Package hostfiles holds what tulled keeps on the host's disk: the record of what this host owned, the last view of the
// store, and the wanted state.
package hostfiles

import "path/filepath"

// Files lists them all, for networks of these names.
func Files(stateDir, runDir string, networks []string) []string {
	files := []string{filepath.Join(runDir, wantedFile)}
	for _, name := range networks {
		dir := NetworkDir(stateDir, name)
		files = append(files, filepath.Join(dir, recordFile), filepath.Join(dir, garbledFile), filepath.Join(dir, viewFile))
	}
	return files
}
