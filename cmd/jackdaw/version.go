package main

import (
	"cmp"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// release is the version of a released build, which packaging/dist has the linker write; "" in any other.
var release string

// version is that of the release, or what the Go toolchain has recorded of this build, and the toolchain's own.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return cmp.Or(release, "unknown")
	}
	return cmp.Or(release, info.Main.Version) + " " + info.GoVersion
}

func versionCommand() *cobra.Command {
	return command("version", "Print the version", "Print the version of jackdaw, and of the Go toolchain that has built it.",
		func(cmd *cobra.Command) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "jackdaw", version())
			return err
		})
}
