package proxy

import (
	"slices"
	"sync"
)

// decoys are exchanges that must fail, for users whom no store is asked about. A store continues an exchange before it
// refuses, and an answer without that would tell that the name does not exist. So decoys say what the stores have said:
// to SCRAM a challenge of the same look, to a bearer token the same error. Stores differ from each other, too, but whoever
// knows nothing of them cannot tell. The zero value is ready. Safe for concurrent use.
type decoys struct {
	scram  scramShape
	bearer sync.Map // by mechanism, the last error that a store or verifier has answered (RFC 7628 section 3.2.2)
}

// learn looks at a store's challenge.
func (d *decoys) learn(a *Attempt, challenge []byte) {
	if a.First != nil {
		d.scram.learn(a, challenge)
	} else {
		d.bearer.Store(a.Mechanism, slices.Clone(challenge))
	}
}

// invalidToken is what we say against a token by ourselves, in the words of RFC 7628 section 3.2.2 and of Google.
var invalidToken = map[string]string{"OAUTHBEARER": `{"status":"invalid_token"}`, "XOAUTH2": `{"status":"401","schemes":"bearer"}`}

// play continues an exchange that nobody has continued, to let it fail. Where stores refuse without a word, so do we; verified says
// that it is not for them to refuse.
func (d *decoys) play(a *Attempt, verified bool) error {
	var challenge []byte
	if a.First != nil {
		challenge = d.scram.imitate(a) // RFC 5802 section 5.1 asks servers for a simulated salt, and the stores have none
	} else if seen, ok := d.bearer.Load(a.Mechanism); ok {
		challenge = seen.([]byte)
	} else if said, ok := invalidToken[a.Mechanism]; ok && verified {
		challenge = []byte(said)
	} else {
		return nil
	}
	if _, err := a.Ask(challenge); err != nil {
		return &clientError{err}
	}
	return nil
}
