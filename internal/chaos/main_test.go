//go:build linux

package chaos

import (
	"testing"

	"tulle/internal/lab/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }
