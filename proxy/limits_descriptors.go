package proxy

import "syscall"

// sessionsPossible is how many sessions the limit of file descriptors allows, two for each: the client's and the store's. The rest is
// for listeners, looks at stores, directories, reloads, the admin socket and its clients. 0 means that nobody knows. Package os has
// raised the limit as far as it goes.
func sessionsPossible() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return sessionsFor(uint64(limit.Cur))
}

// sessionsFor is sessionsPossible for so many descriptors.
func sessionsFor(descriptors uint64) int {
	const most = 1 << 24 // more than memory allows; some systems have limits that are none
	descriptors = min(descriptors, 2*most)
	reserve := 64 + descriptors/16
	if descriptors < 2*reserve {
		reserve = descriptors / 2
	}
	return max(int(descriptors-reserve)/2, 1)
}
