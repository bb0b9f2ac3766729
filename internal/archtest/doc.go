// Package archtest holds the code to its layout: which package may reach which,
// that every package explains itself, and how large the client may get. It has
// tests only; the rules stand there, with their reasons.
//
//	go test ./internal/archtest
package archtest
