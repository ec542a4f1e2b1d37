package main

import (
	"fmt"
	"os"
	"strings"
)

// The lines around what this program writes into a document.
const (
	blockBegin = "<!-- The lines up to the end of the block come from make bench. -->\n"
	blockEnd   = "<!-- end of the block -->\n"
)

// update puts the table into the place that a document has for it, and draws growth beside the document.
func (r *report) update(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	block := r.markdown()
	if capacity := r.capacity(); capacity != "" {
		block += "\n" + capacity
	}
	text, err := replaceBlock(string(data), block)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if err = r.drawInto(strings.TrimSuffix(file, ".md") + ".svg"); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

func replaceBlock(text, block string) (string, error) {
	before, rest, began := strings.Cut(text, blockBegin)
	_, after, ended := strings.Cut(rest, blockEnd)
	if !began || !ended {
		return "", fmt.Errorf("it has no place for the table, between %q and %q", blockBegin, blockEnd)
	}
	return before + blockBegin + "\n" + block + "\n" + blockEnd + after, nil
}
