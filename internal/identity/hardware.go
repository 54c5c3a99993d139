package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mostParts bounds what a lease tells of a host's hardware.
const mostParts = 4

// Hardware returns fingerprints of what a copy of this machine's disk would not find elsewhere: one for each network card,
// with the board's UUID (SMBIOS 7.2.1), so that a card may be exchanged; for the board alone if there is no card. sys is where
// sysfs is mounted. It returns none if sysfs shows neither; then nothing tells a copy from a reboot.
func Hardware(sys string) []string {
	uuid, _ := os.ReadFile(filepath.Join(sys, "class/dmi/id/product_uuid"))
	board := strings.ToLower(strings.TrimSpace(string(uuid)))
	var parts []string
	for _, mac := range cards(sys) {
		parts = append(parts, fingerprint(board+" "+mac))
	}
	if len(parts) == 0 && board != "" {
		parts = []string{fingerprint(board)}
	}
	return parts[:min(len(parts), mostParts)]
}

// cards returns the MAC addresses of the network cards, in order. A virtual function is not one: its address may be another
// after each boot. That of a card in a bond is the one that it was made with.
func cards(sys string) []string {
	devices, _ := filepath.Glob(filepath.Join(sys, "class/net/*/device"))
	var macs []string
	for _, device := range devices {
		if _, err := os.Stat(filepath.Join(device, "physfn")); err == nil {
			continue
		}
		link := filepath.Dir(device)
		mac, err := os.ReadFile(filepath.Join(link, "bonding_slave/perm_hwaddr"))
		if err != nil {
			mac, err = os.ReadFile(filepath.Join(link, "address"))
		}
		if text := strings.TrimSpace(string(mac)); err == nil && text != "" && text != "00:00:00:00:00:00" {
			macs = append(macs, strings.ToLower(text))
		}
	}
	slices.Sort(macs)
	return slices.Compact(macs)
}

func fingerprint(part string) string {
	sum := sha256.Sum256([]byte("tulle hardware " + part))
	return hex.EncodeToString(sum[:6])
}
