//! The reviewed table.

use super::Verdict;

/// A difference, by livelet's reason for a rejection (or hyper's, in parentheses) and hyper's
/// verdict.
pub struct Difference {
    pub livelet: &'static str,
    pub hyper: Verdict,
    /// The RFC's sentence for livelet's side.
    pub why: &'static str,
}

const fn rejects(livelet: &'static str, why: &'static str) -> Difference {
    Difference {
        livelet,
        hyper: Verdict::Accepted,
        why,
    }
}

/// Returns a difference in which livelet rejects early and hyper still waits for the end of the
/// head. The fault is the end of a line, or a length.
const fn rejects_earlier(livelet: &'static str, why: &'static str) -> Difference {
    Difference {
        livelet,
        hyper: Verdict::Incomplete,
        why,
    }
}

const LF: &str = "RFC 9112 2.2: a recipient MAY recognize a single LF as a line terminator";
const EMPTY_LINE: &str = "RFC 9112 2.2: a server ... SHOULD ignore at least one empty line (CRLF) received prior to the request-line";
const INVALID_LINE: &str = "RFC 9112 3: recipients of an invalid request-line SHOULD respond with either a 400 (Bad Request) error or \
                            a 301; 3.2: request-target = origin-form / absolute-form / authority-form / asterisk-form";
const HOST: &str = "RFC 9112 3.2: a server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that \
                    lacks a Host header field and to any request message that contains more than one Host header field line or a \
                    Host header field with an invalid field value";
const EMPTY_HOST: &str = "RFC 9110 4.2.1: a sender MUST NOT generate an \"http\" URI with an empty host identifier. A recipient that \
                          processes such a URI reference MUST reject it as invalid";
const TOO_LARGE: &str = "RFC 9110 5.4: a server that receives a request header field line, field value, or set of fields larger than \
                         it wishes to process MUST respond with an appropriate 4xx (Client Error) status code";
const TOO_LONG: &str = "RFC 9112 3: a server that receives a request-target longer than any URI it wishes to parse MUST respond with a \
                        414 (URI Too Long) status code";
const CODING: &str = "RFC 9112 6.1: a server that receives a request message with a transfer coding it does not understand SHOULD \
                      respond with 501 (Not Implemented)";

/// hyper looks at the latter alone, whatever the former says.
const BOTH: &str = "RFC 9112 6.1: a server MAY reject a request that contains both Content-Length and Transfer-Encoding";

pub const DIFFERENCES: &[Difference] = &[
    rejects("a line ends in LF without CR", LF),
    rejects_earlier("a line ends in LF without CR", LF),
    rejects(
        "an empty line where a request line was expected",
        EMPTY_LINE,
    ),
    rejects_earlier(
        "an empty line where a request line was expected",
        EMPTY_LINE,
    ),
    rejects("a fragment in the request target", INVALID_LINE),
    rejects("bytes outside ASCII in the request target", INVALID_LINE),
    rejects(
        "the request target is neither a path nor an http URI",
        INVALID_LINE,
    ),
    rejects(
        "the target * is valid only with OPTIONS",
        "RFC 9112 3.2.4: the \"asterisk-form\" of request-target is only used for a server-wide OPTIONS request",
    ),
    rejects("malformed authority in the request target", EMPTY_HOST),
    rejects("malformed Host", HOST),
    rejects("no Host", HOST),
    rejects("more than one Host", HOST),
    rejects(
        "Transfer-Encoding does not end in one chunked",
        "RFC 9112 6.3: if a Transfer-Encoding header field is present in a request and the chunked transfer coding is not the final \
         encoding ... the server MUST respond with the 400 (Bad Request) status code; 6.1: a sender MUST NOT apply the chunked \
         transfer coding more than once",
    ),
    rejects("malformed Content-Length", BOTH),
    rejects("two different Content-Length", BOTH),
    rejects("Content-Length with Transfer-Encoding", BOTH),
    rejects("only the transfer coding chunked is supported", CODING),
    rejects("unknown transfer coding", CODING),
    rejects("more than 64 header fields", TOO_LARGE),
    rejects_earlier("more than 64 header fields", TOO_LARGE),
    rejects("the head is longer than 8192 bytes", TOO_LARGE),
    rejects_earlier("the head is longer than 8192 bytes", TOO_LARGE),
    rejects("the request target is longer than 2048 bytes", TOO_LONG),
    rejects_earlier("the request target is longer than 2048 bytes", TOO_LONG),
    Difference {
        livelet: "accepted (message head is too large)",
        hyper: Verdict::Rejected,
        why: "RFC 9110 8.6: a recipient MUST anticipate potentially large decimal numerals; hyper keeps the two largest 64-bit \
              numbers for itself, livelet reads no content anyway",
    },
    Difference {
        livelet: "accepted (invalid transfer-encoding parsed)",
        hyper: Verdict::Rejected,
        why: "RFC 9110 5.6.1.2: a recipient MUST parse and ignore a reasonable number of empty list elements",
    },
    Difference {
        livelet: "accepted (invalid URI)",
        hyper: Verdict::Rejected,
        why: "RFC 9112 3: recipients of an invalid request-line SHOULD respond with 400: the one SHOULD that livelet leaves out, for \
              ASCII that URIs do not have (\" < > and the like). It decodes nothing and compares paths byte by byte: they match none",
    },
    Difference {
        livelet: "undecided (invalid HTTP version parsed)",
        hyper: Verdict::Rejected,
        why: "RFC 9110 15.6.6: 505 is for a version; whether it is a well-formed one shows at the end of its line",
    },
];
