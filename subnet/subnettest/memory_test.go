package subnettest_test

import (
	"testing"
	"testing/synctest"

	"tulle/subnet/subnettest"
)

func TestStore(t *testing.T) {
	subnettest.Run(t, func(t *testing.T, test func(*testing.T, subnettest.Harness)) {
		synctest.Test(t, func(t *testing.T) { test(t, subnettest.NewStore()) })
	})
}
