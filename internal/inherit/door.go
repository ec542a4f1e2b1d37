package inherit

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"
)

// Door is a listener without an address: who has its Bell can connect, and nobody else. A bell can be handed to other
// processes, and to those that they start.
type Door struct {
	// Forwarded takes the bell of another process, if it is not nil. It is called by Accept.
	Forwarded func(*Bell)

	conn *net.UnixConn
	bell *Bell
}

// Bell is the other side of a Door. Safe for concurrent use, by several processes, too.
type Bell struct{ conn *net.UnixConn }

// What a bell says, with a descriptor.
const (
	visit   = 'v' // a connection
	forward = 'f' // the bell of another process
)

// ringLimit bounds how long a process may take to open its door. It has died, or hangs, if it takes longer.
const ringLimit = 10 * time.Second

// NewDoor makes a door and its bell.
func NewDoor() (*Door, error) {
	inside, outside, err := pair()
	if err != nil {
		return nil, err
	}
	return &Door{conn: inside, bell: &Bell{outside}}, nil
}

// Bell returns the door's own bell, which is closed with it.
func (d *Door) Bell() *Bell { return d.bell }

// Accept waits for a connection. Forwarded hears of what else comes.
func (d *Door) Accept() (net.Conn, error) {
	for {
		kind, fd, err := d.receive()
		if err != nil {
			return nil, err
		}
		if fd < 0 {
			continue // we have as many descriptors as we may have: whoever rings is told so by the end of his connection
		}
		conn, err := unixConn(fd)
		switch {
		case err != nil:
		case kind == visit:
			return conn, nil
		case kind == forward && d.Forwarded != nil:
			d.Forwarded(&Bell{conn})
		default:
			conn.Close()
		}
	}
}

// Addr is no address: there is none.
func (d *Door) Addr() net.Addr { return d.conn.LocalAddr() }

// receive reads one byte with the descriptor that comes with it; -1 where it is missing.
func (d *Door) receive() (kind byte, fd int, err error) {
	var text [1]byte
	rights := make([]byte, syscall.CmsgSpace(4)) // for one descriptor
	n, more, _, _, err := d.conn.ReadMsgUnix(text[:], rights)
	if err == nil && n == 0 {
		err = net.ErrClosed
	}
	if err != nil {
		return 0, -1, err
	}
	messages, err := syscall.ParseSocketControlMessage(rights[:more])
	if err != nil || len(messages) != 1 {
		return 0, -1, nil
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return 0, -1, nil
	}
	return text[0], fds[0], nil
}

// Close ends Accept.
func (d *Door) Close() error { return errors.Join(d.conn.Close(), d.bell.Close()) }

// Dial connects with whoever is behind the door.
func (b *Bell) Dial(context.Context) (net.Conn, error) {
	ours, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	if err := b.send(visit, theirs); err != nil {
		ours.Close()
		return nil, err
	}
	return ours, nil
}

// Forward gives another bell to whoever is behind the door.
func (b *Bell) Forward(other *Bell) error { return b.send(forward, other.conn) }

func (b *Bell) send(kind byte, conn *net.UnixConn) error {
	fd, err := duplicate(conn)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	if err := b.conn.SetWriteDeadline(time.Now().Add(ringLimit)); err != nil {
		return err
	}
	_, _, err = b.conn.WriteMsgUnix([]byte{kind}, syscall.UnixRights(fd), nil)
	return err
}

// Close gives the bell back.
func (b *Bell) Close() error { return b.conn.Close() }
