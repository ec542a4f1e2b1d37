// Command sbom prints the bill of materials of a binary: the modules that Go's linker has put into it, as a CycloneDX document.
// It says nothing of the time or the place, so that the same binary has the same document.
package main

import (
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: sbom VERSION BINARY")
		os.Exit(2)
	}
	info, err := buildinfo.ReadFile(os.Args[2])
	if err == nil {
		err = write(os.Stdout, os.Args[1], info)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "sbom: %v\n", err)
		os.Exit(1)
	}
}

// document is what we need of CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/.
type document struct {
	Schema       string       `json:"$schema"`
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	PURL       string     `json:"purl,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn"`
}

// write prints the document of a binary of that version. Which module needs which other is not in a binary: all are said to be
// needed by it.
func write(out io.Writer, version string, info *debug.BuildInfo) error {
	program := component{Type: "application", Ref: info.Main.Path, Name: info.Main.Path, Version: version}
	for _, setting := range info.Settings {
		if strings.HasPrefix(setting.Key, "GO") || setting.Key == "CGO_ENABLED" {
			program.Properties = append(program.Properties, property{"go:" + setting.Key, setting.Value})
		}
	}
	modules := []component{module("std", strings.TrimPrefix(info.GoVersion, "go"), "")}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		modules = append(modules, module(m.Path, m.Version, m.Sum))
	}
	needs := dependency{Ref: program.Ref}
	for _, m := range modules {
		needs.DependsOn = append(needs.DependsOn, m.Ref)
	}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(document{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", SpecVersion: "1.6", Version: 1,
		Metadata: metadata{program}, Components: modules, Dependencies: []dependency{needs},
	})
}

// module is a module of Go by the address that scanners know it by, with the checksum that stands in go.sum.
func module(path, version, sum string) component {
	address := fmt.Sprintf("pkg:golang/%s@%s", path, version)
	c := component{Type: "library", Ref: address, Name: path, Version: version, PURL: address}
	if sum != "" {
		c.Properties = []property{{"go:sum", sum}}
	}
	return c
}
