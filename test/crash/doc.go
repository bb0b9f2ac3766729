// Package crash kills fsbd at random moments, while sandboxes are being made,
// used and removed, and checks what the next start makes of it. Its tests need
// root and the backends they are named after; run.sh sets everything up.
//
// Environment: FSB_TEST_FSBD (path of fsbd; empty: built for the test),
// FSB_CRASH_ROUNDS (kills per backend, default 5), FSB_CRASH_SEED (repeats the
// kill moments of an earlier run), FSB_DOCKER_HOST.
package crash
