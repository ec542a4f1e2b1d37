//go:build profile

package main

import (
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"
)

// A build with the tag profile samples what it does from its start to SIGUSR1, into the file that $JACKDAW_PROFILE names, for
// `make pgo`. It is an init function so that no other build has anything of it.
func init() {
	path := os.Getenv("JACKDAW_PROFILE")
	if path == "" {
		return
	}
	file, err := os.Create(path + ".part")
	if err == nil {
		err = pprof.StartCPUProfile(file)
	}
	if err != nil {
		panic(err)
	}
	enough := make(chan os.Signal, 1)
	signal.Notify(enough, syscall.SIGUSR1)
	go func() {
		<-enough
		pprof.StopCPUProfile()
		if err := os.Rename(path+".part", path); err != nil {
			panic(err)
		}
	}()
}
