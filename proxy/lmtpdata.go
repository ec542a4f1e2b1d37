package proxy

import (
	"errors"
	"io"
	"strconv"
	"strings"

	"jackdaw/backends"
	"jackdaw/internal/wire"
)

// maxPart bounds what is read of a chunk at once.
const maxPart = 32 << 10

// data takes the message behind DATA (RFC 5321 section 4.1.1.4). It goes to its stores as it comes; what one of them says of
// it, the client hears in the end.
func (d *lmtpDialogue) data(args string) error {
	m := d.message
	switch {
	case args != "":
		return d.mistaken("501 5.5.4 DATA takes no argument")
	case m != nil && m.begun:
		return d.mistaken("503 5.5.1 The message comes by BDAT")
	}
	if refusal := m.unwanted(); refusal != nil {
		d.say(refusal.Error())
		return nil // a client that did not wait for the other answers could not know
	}
	m.begun = true
	d.say("354 Go on; a line with a dot alone ends it")
	m.each((*delivery).data)
	if err := d.receive(d.conn.Data()); err != nil {
		return err
	}
	d.conclude()
	return nil
}

// unwanted says why a message can go to nobody, or nil (RFC 2033 section 4.2).
func (m *message) unwanted() *replyError {
	switch {
	case m == nil:
		return errSequence
	case len(m.accepted()) == 0:
		return errNobody
	}
	return nil
}

// receive reads up to the end of the message, whatever is in it.
func (d *lmtpDialogue) receive(data *wire.Data) error {
	for {
		d.clock.wait(true)
		p, err := data.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case data.Bare():
			d.message.spoil(errBare)
		default:
			d.message.write(p)
		}
	}
}

var errBareReply = &replyError{550, "5.6.0 Bare CR or LF, or NUL, in the message"}

// conclude answers for each recipient, in the order in which they were named (RFC 2033 section 4.2).
func (d *lmtpDialogue) conclude() {
	m := d.message
	if m.spoiled == nil {
		m.each((*delivery).conclude)
	}
	for _, r := range m.accepted() {
		if m.spoiled != nil {
			r.verdict.reply = errBareReply.reply()
			close(r.verdict.ready)
		}
		d.waiting = append(d.waiting, r.verdict)
	}
	d.settle()
	d.sent++
	d.received.Add(m.size)
	d.mistakes = 0 // who brings mail speaks the protocol
	d.message = nil
	m.end()
}

// bdat takes a chunk of the message (RFC 3030 section 2). Its octets are on the way, so they are read whatever the answer.
func (d *lmtpDialogue) bdat(args string) error {
	size, last, ok := readChunk(args)
	if !ok {
		d.say("501 5.5.4 Malformed BDAT")
		return errNonsense // nobody knows where the next command is
	}
	m, refusal := d.message, errChunking
	if (backends.Capabilities{List: d.promised}).Has("CHUNKING") {
		refusal = m.unwanted()
	}
	if refusal != nil {
		err := d.octets(size, func([]byte) {})
		d.say(refusal.Error())
		return err
	}
	m.begun = true
	m.each(func(t *delivery) { t.chunk(size, last) })
	if err := d.octets(size, m.write); err != nil {
		return err
	}
	if last {
		d.conclude()
		return nil
	}
	m.each((*delivery).taken)
	d.say("250 2.0.0 ", strconv.FormatUint(size, 10), " octets received")
	return nil
}

var (
	errNobody   = &replyError{503, "5.5.1 No valid recipients"}
	errChunking = &replyError{502, "5.5.1 CHUNKING was not offered"}
)

// readChunk reads a size, and whether it is the last one's.
func readChunk(args string) (size uint64, last, ok bool) {
	digits, rest, more := strings.Cut(args, " ")
	last = strings.EqualFold(rest, "LAST")
	if _, ok = readNumber(digits); !ok || more != last {
		return 0, false, false
	}
	size, err := strconv.ParseUint(digits, 10, 64)
	return size, last, err == nil
}

// octets reads as many octets as a chunk has.
func (d *lmtpDialogue) octets(size uint64, use func([]byte)) error {
	buffer := make([]byte, min(size, maxPart))
	for size > 0 {
		d.clock.wait(true)
		n, err := d.conn.ReadOctets(buffer[:min(size, maxPart)])
		if err != nil {
			return err
		}
		use(buffer[:n])
		size -= uint64(n)
	}
	return nil
}
