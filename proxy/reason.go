package proxy

import (
	"errors"

	"jackdaw/backends"
	"jackdaw/internal/relay"
)

// Reason is why a client is refused, or why its session ends. For each a dialogue has a fixed sentence with its
// protocol's own code: no client reads the text of a store, a name or an error of ours.
type Reason int

// The reasons.
const (
	ReasonDenied       Reason = iota // wrong password, unknown user, or a user who may not be here: one sounds as the other
	ReasonUnavailable                // something behind us fails
	ReasonBroken                     // it will fail again, until somebody mends it
	ReasonInUse                      // another session has the mailbox for itself
	ReasonTooSoon                    // the last login was not long ago
	ReasonNotPermitted               // the password is right, and the user may not use this service
	ReasonTooMany                    // too many logins failed on this connection
	ReasonTimeout                    // patience ended before a login
	ReasonNonsense                   // the client does not speak the protocol
	ReasonTooLong                    // a line or a literal that cannot be taken
	ReasonForbidden                  // a command that a proxy cannot let pass
	ReasonIdle                       // nothing has moved for too long
	ReasonShutdown                   // we are going
	ReasonMoved                      // the user's mail is to be found elsewhere
	ReasonKicked                     // the administrator has ended the session
	ReasonFull                       // there are too many sessions, in all or from the client's network
	ReasonUserFull                   // the password is right, and the user has too many sessions
	ReasonBarred                     // too many logins from the client's network failed
	ReasonUnwelcome                  // the operator does not want the client
)

// ends are the errors that end a session, where the client may hear why.
var ends = map[error]Reason{
	errTooMany:        ReasonTooMany,
	errTimeout:        ReasonTimeout,
	errNonsense:       ReasonNonsense,
	errTooLong:        ReasonTooLong,
	errUnauthenticate: ReasonForbidden,
	errStartTLS:       ReasonForbidden,
	errBDAT:           ReasonForbidden,
	relay.ErrIdle:     ReasonIdle,
	errShutdown:       ReasonShutdown,
	ErrKicked:         ReasonKicked,
	errFull:           ReasonFull,
	errCrowd:          ReasonFull,
	errShare:          ReasonFull,
	errBarred:         ReasonBarred,
	errDenied:         ReasonUnwelcome,
	backends.ErrMoved: ReasonMoved,
}

// farewell chooses what a client hears at the end of its session. ok is false where there is nothing to say: the client has
// left, or its connection is broken.
func farewell(err error) (reason Reason, ok bool) {
	for end, reason := range ends {
		if errors.Is(err, end) {
			return reason, true
		}
	}
	return 0, false
}

// sentence is what a client reads behind the code.
func (r Reason) sentence() string {
	switch r {
	case ReasonDenied:
		return "Authentication failed"
	case ReasonBroken:
		return "Failure that somebody has to mend"
	case ReasonInUse:
		return "Mailbox is in use, try again later"
	case ReasonTooSoon:
		return "Too soon after the last login, try again later"
	case ReasonNotPermitted:
		return "Service not permitted for this user"
	case ReasonTooMany:
		return "Too many failed logins"
	case ReasonTimeout:
		return "Too slow"
	case ReasonNonsense:
		return "Too many errors"
	case ReasonTooLong:
		return "Line or literal too long"
	case ReasonForbidden:
		return "Command not possible here"
	case ReasonIdle:
		return "Idle for too long"
	case ReasonKicked:
		return "Session ended by the administrator"
	case ReasonShutdown:
		return "Server is shutting down, try again"
	case ReasonMoved:
		return "Mailbox has moved, try again"
	case ReasonFull:
		return "Too many sessions, try again later"
	case ReasonUserFull:
		return "Too many sessions of this user, try again later"
	case ReasonBarred:
		return "Too many failed logins from your network, try again later"
	case ReasonUnwelcome:
		return "Connections from your network are refused"
	default:
		return "Temporary failure, try again later"
	}
}

// errNotPermitted is a refusal of one service, for a user who has proved who he is.
var errNotPermitted = errors.New("service not permitted")

// errPolicy is a refusal that sounds like a wrong password, although nobody asked a store.
var errPolicy = errors.New("not permitted")

// storeCodes are the stores' codes for what a client can do better than try again at once, or ask for another password.
var storeCodes = map[string]Reason{
	"IN-USE":      ReasonInUse,   // RFC 2449 section 8.1.2
	"INUSE":       ReasonInUse,   // RFC 5530 section 3
	"LOGIN-DELAY": ReasonTooSoon, // RFC 2449 section 8.1.1
	"SYS/PERM":    ReasonBroken,  // RFC 3206 section 4
}

// reasonFor chooses what a client hears of a failed login. Only what the client itself got wrong is a denial.
func reasonFor(err error) Reason {
	if denied(err) {
		return ReasonDenied
	}
	if errors.Is(err, errNotPermitted) {
		return ReasonNotPermitted
	}
	if errors.Is(err, errUserFull) {
		return ReasonUserFull
	}
	if refusal, ok := errors.AsType[*backends.Refusal](err); ok {
		if reason, ok := storeCodes[refusal.Code]; ok {
			return reason
		}
	}
	return ReasonUnavailable
}

func denied(err error) bool {
	return backends.Denied(err) || byUs(err)
}

// byUs tells that a login was refused without a store: it must take as long as if a store had done it.
func byUs(err error) bool {
	return errors.Is(err, errPolicy) || errors.Is(err, backends.ErrName) || errors.Is(err, backends.ErrNotFound) ||
		errors.Is(err, backends.ErrRefused) || errors.Is(err, backends.ErrNoService) || errors.Is(err, backends.ErrUnverified) ||
		errors.Is(err, backends.ErrNoEntry) || errors.Is(err, backends.ErrDenied)
}
