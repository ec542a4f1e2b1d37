package backends

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"jackdaw/configs"
)

// unheard is an address that neither takes nor refuses connections: its queue is full, and nobody empties it.
func unheard(t *testing.T, host [4]byte) configs.Address {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: host}); err == nil {
		err = syscall.Listen(fd, 0)
	}
	name, _ := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("%d.%d.%d.%d:%d", host[0], host[1], host[2], host[3], name.(*syscall.SockaddrInet4).Port)
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		cancel()
		if err != nil {
			return configs.Address{Network: "tcp", Address: address}
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("the queue has no end")
	return configs.Address{}
}

// An address that says nothing at all is overtaken by the next, whether a host has both or the configuration names them, and by
// more of them if need be.
func TestDeafAddressIsOvertaken(t *testing.T) {
	one := unheard(t, [4]byte{127, 0, 0, 5})
	_, port, _ := net.SplitHostPort(one.Address)
	store := serve(t, tcp("127.0.0.7", port))
	host(t, "deaf.example", "127.0.0.5", "127.0.0.6", "127.0.0.7")
	for _, access := range []configs.Access{way(tcp("deaf.example", port)), way(one, unheard(t, [4]byte{127, 0, 0, 5}), store.address)} {
		s := unstarted(t, access)
		conn, won, left, errs := s.race(t.Context(), s.resolve(t.Context(), false), 10*time.Millisecond)
		if conn == nil || won.end != store.address {
			t.Fatalf("%s has won, with %v", won, errs)
		}
		conn.Close()
		for _, err := range errs {
			if !errors.Is(err, syscall.ECONNREFUSED) { // as nobody listens at 127.0.0.6
				t.Errorf("somebody has waited: %v", err)
			}
		}
		if len(left) == 0 || left[0].end != one {
			t.Errorf("left to be tried are %v", left)
		}
	}
	eventually(t, "nothing is left open", store.left)
}
