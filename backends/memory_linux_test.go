package backends

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"jackdaw/internal/smallroom"
)

// What could not be written is written when it can be. The log tells once what is wrong.
func TestKeepsAgain(t *testing.T) {
	dir := smallroom.Enter(t)
	if dir == "" {
		return
	}
	core, logs := observer.New(zapcore.InfoLevel)
	m := openMemory(dir, zap.New(core))
	tries := 0
	drained := []string{"a"}
	m.contents = map[string]func() any{
		drainedFile:      func() any { return drained },
		capabilitiesFile: func() any { tries++; return map[string]Capabilities{"a imap": {}} },
	}
	kept := func(file, want string) bool {
		data, err := os.ReadFile(filepath.Join(dir, file))
		return err == nil && strings.Contains(string(data), want)
	}
	m.keepNow(drainedFile)
	free := smallroom.Fill(t, dir)
	m.mu.Lock()
	m.change(capabilitiesFile)
	m.writeAfter(time.Millisecond)
	drained = []string{"b"}
	m.mu.Unlock()
	m.keepNow(drainedFile)
	eventually(t, "it was tried again and again", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return tries > 3
	})
	if n := logged(logs, "keeping what is to outlive a restart"); n != 2 || !kept(drainedFile, `"a"`) {
		t.Errorf("what was drained is there: %v; %d lines for two files: %v", kept(drainedFile, `"a"`), n, logs.All())
	}
	free()
	eventually(t, "all is kept", func() bool { return kept(drainedFile, `"b"`) && kept(capabilitiesFile, "a imap") })
	m.mu.Lock()
	drained = []string{"c"}
	m.mu.Unlock()
	m.keepLater(drainedFile)
	m.leave(drainedFile)
	if m.keep(); !kept(drainedFile, `"b"`) {
		t.Error("what another process writes was written")
	}
}
