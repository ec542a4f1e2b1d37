package backends

import (
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain shortens what the tests would wait for, before anything is started that looks at it.
func TestMain(m *testing.M) {
	retryFirst, retryMost = 2*time.Millisecond, 20*time.Millisecond
	openLimit, loginLimit, inspectLimit, leaveLimit = 2*time.Second, 3*time.Second, 3*time.Second, 400*time.Millisecond
	dialLimit, tlsLimit, stagger = time.Second, 2*time.Second, patience
	lookup = lookupTest
	goleak.VerifyTestMain(m, goleak.Cleanup(os.Exit))
}

// patience is how long something may take that must happen.
const patience = 10 * time.Second

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}
