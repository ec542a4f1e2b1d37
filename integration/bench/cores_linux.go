package main

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// processors lists the numbers of those that this program may use.
func processors() (numbers []string, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, err
	}
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			numbers = append(numbers, strconv.Itoa(i))
		}
	}
	return numbers, nil
}
