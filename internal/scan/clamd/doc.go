// Package clamd is a client of ClamAV's daemon, clamd(8): a scan.Scanner that asks one clamd, or a pool of several, over
// Unix sockets or TCP.
//
// # How it asks
//
// A scan has a connection for itself while it runs, and connections are kept in an IDSESSION between scans. To a clamd on
// a Unix socket the object is handed over as an open file (FILDES), so that its bytes are not copied through the socket;
// to others, and where the descriptor does not arrive, it is sent (INSTREAM). A connection that breaks without a verdict
// costs one retry, on another address where there is one. Besides, one connection to each address is kept to ask for
// VERSION at intervals: it notices at once when clamd goes, and answers Version from memory.
//
// # What counts as clean
//
// Only the exact reply "OK", with the number of our request, and only when clamd has read the object whole. That is not
// the same, because clamd says OK too to what it leaves out. Found by experiment with ClamAV 1.4.6, by FILDES and INSTREAM
// alike; the whole table is in docs/decisions, "clamd says OK to what it has not read":
//
//   - An object larger than MaxFileSize or MaxScanSize is OK, unless AlertExceedsMax is on: then it is
//     "Heuristics.Limits.Exceeded… FOUND", which is Incomplete here. The same holds for MaxScanTime, MaxRecursion and
//     MaxFiles. The driver finds out whether this clamd alerts, by an archive that is nested too deeply; and if it does not,
//     what size it reads, by EICAR in an archive that is padded to the size in question. It asks that only where an object
//     of that size was OK, once for each size, and anew after a restart.
//   - HTML larger than MaxHTMLNormalize is OK, whatever AlertExceedsMax says. The driver probes that in the same way.
//   - MP3, Ogg, RealMedia, SQLite files and a few more, told by their first bytes alone, are OK unread. The driver sends
//     such an object once more, with a line feed before it, and clamd reads it.
//   - A clamd without AlertExceedsMax gives up silently after MaxScanTime (two minutes, unless configured). Config.Timeout is
//     less by default; keep it so.
//
// Inside archives clamd leaves out members of these kinds in silence too, ZIP members above MaxFileSize even when it
// alerts. Therefore Unpacks is true only while every clamd in use alerts, and Overlooks names the members that have to be
// asked about one by one.
package clamd
