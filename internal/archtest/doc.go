// Package archtest holds the project's structure and house rules as tests, each with its reason in the message.
//
// A rule that stands in the way of something sound is changed here, in the commit that needs it, and the reason with it.
package archtest
