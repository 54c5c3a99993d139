package subnettest_test

import (
	"testing"
	"testing/synctest"

	"tulle/subnet/subnettest"
)

func TestStore(t *testing.T) {
	subnettest.RunInKeys(t, func(t *testing.T, test func(*testing.T, subnettest.KeyHarness)) {
		synctest.Test(t, func(t *testing.T) { test(t, subnettest.NewStore()) })
	})
}
