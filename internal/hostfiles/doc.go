// Package hostfiles holds what tulled keeps on the host's disk: the record of what this host owned, the last view of the
// store, and the wanted state.
package hostfiles

import "path/filepath"

// Files lists them all.
func Files(stateDir, runDir string) []string {
	return []string{
		filepath.Join(stateDir, recordFile), filepath.Join(stateDir, garbledFile), filepath.Join(stateDir, viewFile),
		filepath.Join(runDir, wantedFile),
	}
}
