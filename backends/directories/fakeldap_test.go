package directories

import (
	"net"
	"sync"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// fakeLDAP is a server that answers as a test says.
type fakeLDAP struct {
	url    string
	answer func(ldapRequest) []byte // nil closes the connection

	mu    sync.Mutex
	open  map[net.Conn]bool
	most  int // connections at once
	dials int
	heard []string // what was asked, in the order in which it came
}

// ldapRequest is what a client asks.
type ldapRequest struct {
	conn         int // the how-many-th connection
	id           int64
	op           ber.Tag
	dn, password string // of a bind
	filter       string // of a search
	size         int64
}

func startFakeLDAP(t testing.TB, answer func(ldapRequest) []byte) *fakeLDAP {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &fakeLDAP{url: "ldap://" + l.Addr().String(), answer: answer, open: make(map[net.Conn]bool)}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.hangUp()
		running.Wait()
	})
	return s
}

func (s *fakeLDAP) serve(c net.Conn) {
	defer c.Close()
	s.mu.Lock()
	s.open[c] = true
	s.dials++
	number := s.dials
	s.most = max(s.most, len(s.open))
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, c)
	}()
	for {
		packet, err := ber.ReadPacket(c)
		if err != nil || len(packet.Children) < 2 {
			return
		}
		r := readLDAPRequest(packet)
		r.conn = number
		s.mu.Lock()
		s.heard = append(s.heard, r.String())
		s.mu.Unlock()
		answer := s.answer(r)
		if answer == nil || r.op == ldap.ApplicationUnbindRequest {
			return
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

func readLDAPRequest(packet *ber.Packet) (r ldapRequest) {
	op := packet.Children[1]
	r.id, r.op = packet.Children[0].Value.(int64), op.Tag
	switch op.Tag {
	case ldap.ApplicationBindRequest:
		r.dn, r.password = op.Children[1].Value.(string), op.Children[2].Data.String()
	case ldap.ApplicationSearchRequest:
		r.size = op.Children[3].Value.(int64)
		r.filter, _ = ldap.DecompileFilter(op.Children[6])
	}
	return r
}

func (r ldapRequest) String() string {
	switch r.op {
	case ldap.ApplicationBindRequest:
		return "bind " + r.dn
	case ldap.ApplicationSearchRequest:
		return "search " + r.filter
	case ldap.ApplicationUnbindRequest:
		return "unbind"
	}
	return "extended"
}

// hangUp closes all connections.
func (s *fakeLDAP) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		c.Close()
	}
}

// connections is how many there were in all.
func (s *fakeLDAP) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dials
}

// asked is what was asked since the last call.
func (s *fakeLDAP) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.heard
	s.heard = nil
	return all
}

// result is the end of an answer (RFC 4511 section 4.1.9).
func (r ldapRequest) result(code uint16) []byte {
	tags := map[ber.Tag]ber.Tag{
		ldap.ApplicationBindRequest: ldap.ApplicationBindResponse, ldap.ApplicationSearchRequest: ldap.ApplicationSearchResultDone,
		ldap.ApplicationExtendedRequest: ldap.ApplicationExtendedResponse, ldap.ApplicationUnbindRequest: ldap.ApplicationExtendedResponse,
	}
	op := ber.Encode(ber.ClassApplication, ber.TypeConstructed, tags[r.op], nil, "")
	op.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, uint64(code), ""))
	op.AppendChild(octets(""))
	op.AppendChild(octets("because"))
	return r.message(op)
}

// entry is an entry that was found; an attribute's name stands before each of its values.
func (r ldapRequest) entry(dn string, attributes ...string) []byte {
	op := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultEntry, nil, "")
	op.AppendChild(octets(dn))
	list := ber.NewSequence("")
	for i := 0; i < len(attributes); {
		name := attributes[i]
		values := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSet, nil, "")
		for ; i < len(attributes) && attributes[i] == name; i += 2 {
			values.AppendChild(octets(attributes[i+1]))
		}
		attribute := ber.NewSequence("")
		attribute.AppendChild(octets(name))
		attribute.AppendChild(values) // what is appended must be complete
		list.AppendChild(attribute)
	}
	op.AppendChild(list)
	return r.message(op)
}

// reference says that there may be more elsewhere.
func (r ldapRequest) reference(url string) []byte {
	op := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultReference, nil, "")
	op.AppendChild(octets(url))
	return r.message(op)
}

func (r ldapRequest) message(op *ber.Packet) []byte {
	packet := ber.NewSequence("")
	packet.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, r.id, ""))
	packet.AppendChild(op)
	return packet.Bytes()
}

func octets(s string) *ber.Packet {
	return ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, s, "")
}
