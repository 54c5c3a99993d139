//go:build linux

package dockertest

import (
	"bytes"
	"testing"

	"tulle/internal/lab/machinetest"
)

// Image is the name of the image that Import makes.
const Image = "busybox"

// Import makes an image of a static busybox, without any registry. Its command serves /www on port 80.
func (m *Machine) Import(t *testing.T, busybox string) {
	t.Helper()
	cmd := m.Command(t.Context(), "docker", "import", "--change", `CMD ["httpd", "-f", "-p", "80", "-h", "/www"]`, "-", Image)
	cmd.Stdin = bytes.NewReader(machinetest.Busybox(t, busybox))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("import image on %s: %v: %s", m, err, out)
	}
}
