package directories

import (
	"context"
	"fmt"
	"time"
)

// What the kinds that ask a server have in common.

// bounded is withTimeout, and ends with the directory, too.
func bounded(ctx, open context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancelCause(ctx)
	if open.Err() != nil {
		end(context.Cause(open))
	}
	stop := context.AfterFunc(open, func() { end(context.Cause(open)) })
	ctx, cancel := withTimeout(ctx, timeout)
	return ctx, func() { stop(); cancel(); end(nil) }
}

// checkText refuses what no name, password or place can be. "" is none.
func checkText(s string) error {
	if s != "" && !validName(s) {
		return fmt.Errorf("is not one line of at most %d octets", maxName)
	}
	return nil
}
