// Package signatures is the built-in engine: it judges the bytes of one object by ClamAV's signature files.
//
// Read are .hdb and .hsb (digests of whole files), .ndb (bodies), the allow-lists .fp and .sfp, the ignore-lists .ign and
// .ign2, and these as members of .cvd and .cld containers, whose digital signature is not verified: take them from a place
// that you trust. Everything else in a directory is named in the report of the load (Loaded), and so is every line that
// cannot be used, with its reason. One signature is built in: the EICAR test file, wherever in an object its 68 bytes stand.
// The standard puts them at the start of a file; a gateway sees them behind headers and inside envelopes too.
//
// The engine is flat: it opens no archive. The gate unpacks, and has every member judged as an object of its own.
//
// # Matching
//
// A body is split at its unbounded and wide gaps into parts. Of each part, one rare run of fixed bytes (rarity: bigrams.bin,
// trained on programs and texts, and the other signatures loaded) is kept in a table of n-grams, and a bitmap of hashed
// n-grams, small enough for the processor's cache, is asked about the text at every fourth byte; for the few parts with
// short runs only, at every byte. What the bitmap lets through is looked up, compared, and put together over the gaps, in
// one pass from the start of the text to its end, whose state is bounded. Bodies at one exact place are compared there.
// The work is bounded in proportion to the text: an object made to exceed it is Incomplete (bomb), never Clean.
//
// # Where this engine differs from ClamAV
//
//   - A malformed line costs itself only, where ClamAV refuses the whole file.
//   - Names are reported as they are written, without ".UNOFFICIAL".
//   - Nested alternatives, those with wildcards, negated classes and aa[n-m] mean what ClamAV's manual says they do.
//   - ClamAV remembers eight places of each part; here every place counts.
//   - Texts are also scanned lower-cased, white space folded, other control characters and bytes above 0x7F dropped, as
//     ClamAV does with text and scripts. ClamAV's further rewriting of HTML (entities, tags and comments removed) is not done.
//   - VI offsets, macros ($n$) and relative offsets in Mach-O files are not supported: such lines are reported.
//   - EOF-n also applies to executables whose headers are broken.
package signatures
