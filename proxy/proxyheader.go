package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/pires/go-proxyproto"

	"jackdaw/backends"
)

// The bounds of a PROXY header (HAProxy's proxy-protocol.txt, sections 2.1 and 2.2).
const (
	maxProxyV1   = 107
	maxProxyV2   = 2 << 10 // behind the fixed part: addresses, and TLVs, which nobody reads
	proxyV2Fixed = 16
)

// proxyHeaderLimit is how long a PROXY header may take: its sender has it ready.
var proxyHeaderLimit = 10 * time.Second

var (
	errProxyHeader  = errors.New("malformed PROXY header")
	errProxyTimeout = errors.New("PROXY header took too long")
)

// meet learns from the PROXY header, where the peer has to send one, who the client is.
func (s *session) meet(raw net.Conn) error {
	if !s.settings.listener.ProxyFrom.Contains(s.peer.Client) {
		return nil
	}
	by := clientName(&s.peer)
	header, err := readProxyHeaderInTime(raw)
	peer := s.peer
	if err == nil {
		err = applyProxyHeader(&peer, header)
	}
	if err != nil {
		s.mute = true // whoever this is, it is not in our protocol
		return fmt.Errorf("reading the PROXY header: %w", err)
	}
	s.note(func() { s.peer, s.proxy = peer, by })
	return nil
}

// readProxyHeaderInTime sets no deadline that it would have to take back: the login's may have passed in the meantime.
func readProxyHeaderInTime(raw net.Conn) (*proxyproto.Header, error) {
	timer := time.AfterFunc(proxyHeaderLimit, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	header, err := readProxyHeader(raw)
	if !timer.Stop() {
		return nil, errProxyTimeout
	}
	return header, err
}

// readProxyHeader reads a header and not one octet more: what follows may belong to TLS.
func readProxyHeader(r io.Reader) (*proxyproto.Header, error) {
	header := make([]byte, len(proxyproto.SIGV2), proxyV2Fixed)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, err
	}
	var err error
	switch {
	case bytes.Equal(header, proxyproto.SIGV2):
		header, err = readProxyV2(r, header)
	case bytes.HasPrefix(header, []byte("PROXY ")):
		header, err = readProxyV1(r, header)
	default:
		err = errProxyHeader
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // who has begun does not leave without a word
	}
	if err != nil {
		return nil, err
	}
	return proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(header), len(header)))
}

func readProxyV1(r io.Reader, header []byte) ([]byte, error) {
	one := make([]byte, 1)
	for len(header) < maxProxyV1 {
		if _, err := io.ReadFull(r, one); err != nil {
			return nil, err
		}
		if header = append(header, one[0]); one[0] == '\n' {
			return header, nil
		}
	}
	return nil, errProxyHeader
}

func readProxyV2(r io.Reader, header []byte) ([]byte, error) {
	header = header[:proxyV2Fixed]
	if _, err := io.ReadFull(r, header[len(proxyproto.SIGV2):]); err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint16(header[proxyV2Fixed-2:]))
	if length > maxProxyV2 {
		return nil, errProxyHeader
	}
	header = append(header, make([]byte, length)...)
	_, err := io.ReadFull(r, header[proxyV2Fixed:])
	return header, err
}

// applyProxyHeader makes the client of whom the header speaks. LOCAL and UNKNOWN, and families that are not the Internet's,
// leave the proxy itself, as whom nobody is trusted.
func applyProxyHeader(peer *backends.Peer, header *proxyproto.Header) error {
	source, destination, ok := header.TCPAddrs()
	switch {
	case header.Command.IsLocal() || header.TransportProtocol.IsUnspec() || header.TransportProtocol.IsUnix():
		peer.Unproven = true
		return nil
	case !ok:
		return errProxyHeader
	}
	client, local := unmapped(source), unmapped(destination)
	if !client.IsValid() || !local.IsValid() {
		return errProxyHeader
	}
	peer.Client, peer.Port, peer.Local = client.Addr(), client.Port(), local
	return nil
}

// unmapped is an address as it is compared everywhere: of IPv4, where IPv6 carries one.
func unmapped(a *net.TCPAddr) netip.AddrPort {
	full := a.AddrPort()
	return netip.AddrPortFrom(full.Addr().Unmap(), full.Port())
}
