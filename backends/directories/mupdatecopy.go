package directories

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"jackdaw/internal/whole"
)

// A copy of the mailboxes of a Murder is a file of lines:
//
//	jackdaw: mailboxes of a Murder, 1
//	user.anna<TAB>store1.example.net
//	user.bob<TAB>                       which is reserved
//	end 2 9ae0daaf                      the number of mailboxes, and a CRC-32 of all before this line
const copyHeader = "jackdaw: mailboxes of a Murder, 1\n"

var errCopy = errors.New("not a whole copy of the mailboxes of a Murder")

// save writes a copy, which replaces the one before when it is complete.
func (m *mailboxes) save(path string) error { return whole.File(path, os.Rename, m.write) }

func (m *mailboxes) write(to io.Writer) error {
	sum := crc32.NewIEEE()
	out := bufio.NewWriterSize(io.MultiWriter(to, sum), 1<<16)
	_, _ = out.WriteString(copyHeader) // Flush reports what goes wrong
	for name, at := range m.places {
		_, _ = out.WriteString(name)
		_ = out.WriteByte('\t')
		if at != (place{}) {
			_, _ = out.WriteString(at.Value())
		}
		_ = out.WriteByte('\n')
	}
	if err := out.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(to, "end %d %08x\n", len(m.places), sum.Sum32())
	return err
}

// loadMailboxes reads a copy. One that is cut off or damaged is none.
func loadMailboxes(path string) (*mailboxes, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, err := readMailboxes(f)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return m, nil
}

func readMailboxes(from io.Reader) (*mailboxes, error) {
	m, sum := newMailboxes(), crc32.NewIEEE()
	in := bufio.NewReaderSize(from, 4*maxMupdateName) // no line is as long
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) || errors.Is(err, bufio.ErrBufferFull) {
			return nil, errCopy
		}
		if err != nil {
			return nil, err
		}
		name, server, entry := bytes.Cut(line[:len(line)-1], []byte("\t"))
		if !first && !entry {
			if string(line) != fmt.Sprintf("end %d %08x\n", len(m.places), sum.Sum32()) {
				return nil, errCopy
			}
			return m, nil
		}
		_, _ = sum.Write(line) // it never fails
		if first {
			if string(line) != copyHeader {
				return nil, errCopy
			}
		} else if err := m.restore(name, server); err != nil {
			return nil, err
		}
	}
}

// restore takes one line of a copy.
func (m *mailboxes) restore(name, server []byte) error {
	kept, domain, ok := keptName(name)
	at, before := placeOf(server), len(m.places)
	if !ok || (at == place{}) != (len(server) == 0) {
		return errCopy
	}
	if err := m.set(kept, domain, at); err != nil {
		return err
	}
	if len(m.places) == before {
		return fmt.Errorf("%w: a mailbox stands there twice", errCopy)
	}
	return nil
}
