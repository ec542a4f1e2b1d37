package main

import (
	"encoding/json"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

// TestDocument: every module of a binary is in its document once, with the version that was linked, as is Go's own library.
func TestDocument(t *testing.T) {
	info := &debug.BuildInfo{
		GoVersion: "go1.26.8",
		Main:      debug.Module{Path: "jackdaw", Version: "(devel)"},
		Deps: []*debug.Module{
			{Path: "go.uber.org/zap", Version: "v1.28.0", Sum: "h1:abc="},
			{Path: "a.example/old", Version: "v1.0.0", Replace: &debug.Module{Path: "a.example/fork", Version: "v1.0.1"}},
		},
		Settings: []debug.BuildSetting{{Key: "GOOS", Value: "linux"}, {Key: "-ldflags", Value: "-s"}},
	}
	var out strings.Builder
	if err := write(&out, "1.2.3", info); err != nil {
		t.Fatal(err)
	}
	var got document
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatal(err)
	}
	if c := got.Metadata.Component; c.Name != "jackdaw" || c.Version != "1.2.3" || len(c.Properties) != 1 {
		t.Errorf("it describes %+v", c)
	}
	var addresses []string
	for _, c := range got.Components {
		addresses = append(addresses, c.PURL)
	}
	want := []string{"pkg:golang/std@1.26.8", "pkg:golang/go.uber.org/zap@v1.28.0", "pkg:golang/a.example/fork@v1.0.1"}
	if !slices.Equal(addresses, want) {
		t.Errorf("its components are %q, want %q", addresses, want)
	}
	if len(got.Dependencies) != 1 || !slices.Equal(got.Dependencies[0].DependsOn, want) {
		t.Errorf("its dependencies are %+v", got.Dependencies)
	}
	if p := got.Components[1].Properties; len(p) != 1 || p[0].Value != "h1:abc=" {
		t.Errorf("its checksums are %+v", p)
	}
}
