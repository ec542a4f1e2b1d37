package proxy

import (
	"net"
	"syscall"
	"testing"

	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/inherit"
)

// A client that vanishes in IDLE is noticed: the system asks after it.
func TestKeepAlive(t *testing.T) {
	server := NewServer(zap.NewNop(), inherit.NewSockets())
	l, err := server.listen(configs.Listener{Address: configs.Address{Network: "tcp", Address: "127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, option := range []struct {
		name              string
		level, code, want int
	}{
		{"SO_KEEPALIVE", syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 120},
		{"TCP_KEEPINTVL", syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 30},
		{"TCP_KEEPCNT", syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 4},
	} {
		raw, err := conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var got int
		var optErr error
		if err := raw.Control(func(fd uintptr) { got, optErr = syscall.GetsockoptInt(int(fd), option.level, option.code) }); err != nil {
			t.Fatal(err)
		}
		if optErr != nil || got != option.want {
			t.Errorf("%s is %d (%v), want %d", option.name, got, optErr, option.want)
		}
	}
}
