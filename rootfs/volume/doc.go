// Package volume keeps named volumes: directories that outlive sandboxes and can
// be mounted into several of them.
//
// A volume is a directory below the store's: a record (volume.json, replaced as a
// whole), a lock, and the directory of its files. Users of a volume hold the lock
// shared, whoever removes it holds it alone; the lock ends with the process that
// has it. Methods may be called from any goroutine and any number of processes.
package volume
