//! Small streams, each about one thing that a terminal remembers, and what
//! comes after to show whether it does.

/// Name and stream.
pub(crate) const CASES: &[(&str, &str)] = &[
    ("text", "one\r\ntwo\tthree\r\n\r\n    four\x08\x08!"),
    (
        "attributes",
        "\x1b[1ma\x1b[2;3mb\x1b[4;5mc\x1b[22;7md\x1b[8;9me\x1b[27;53mf\x1b[mg",
    ),
    (
        "underlines",
        "\x1b[4:3;58:2::255:0:9mcurl\x1b[4:5mdash\x1b[58:5:3;21mdouble\x1b[59;4:0mno\x1b[4mx",
    ),
    (
        "colours",
        "\x1b[31;42ma\x1b[95;106mb\x1b[38;5;123;48;5;9mc\x1b[38:2:1:2:3md\x1b[48;2;9;8;7me\x1b[39mf\x1b[49mg",
    ),
    (
        "links",
        "\x1b]8;id=1;http://a/\x1b\\one\x1b[1m two\x1b]8;;http://b/\x07three\x1b]8;;\x07four",
    ),
    (
        "wide",
        "한글 字 😀 a한b\r\n0123456789012345678한한x\r\n012345678901234567한y\x1b[2;5Hzz\x1b[3;1H한\x08q",
    ),
    (
        "marks",
        "e\u{301}a\u{308}\u{323}o 👩\u{200d}👧 ☀\u{fe0f}x\r\n0123456789012345678e\u{301}z\x1b[4;9He\x1b[4;10H\u{301}",
    ),
    (
        "wrapped",
        "aaaaaaaaaabbbbbbbbbbccccc\r\nddddddddddeeeeeeeeee\r\nf\x1b[1;20HX\x1b[2;3HY",
    ),
    (
        "wrapped in colour",
        "\x1b[44maaaaaaaaaabbbbbbbbbbcc   \r\nx\r\ny\r\nz\r\naaaaaaaaaabbbbbbbbbbccc\x1b[m\r\nz",
    ),
    (
        "wrapped blank",
        "aaaaaaaaaabbbbbbbbbbc\x08 \x1b[1;5Hz\r\n\r\n\r\n\r\n\r\n\r\n0",
    ),
    (
        "pending wrap",
        "\x1b[3maaaaaaaaaabbbbbbbbbb\x1b[31mc\x1b[2;20Hq\x1b[m\rr\x1b[3;20Hs\x1b[Kt\x1b[4;19Huv\x08w",
    ),
    (
        "saved pending",
        "aaaaaaaaaabbbbbbbbbb\x1b7cc\x1b8dd\x1b[3;20Hx\x1b7\x1b[1;1Hy\x1b8zz\x1b8\x1b[1mq",
    ),
    (
        "saved",
        "\x1b[3;4H\x1b[1;31m\x1b(0\x1b7\x1b(B\x1b[m\x1b[1;1Habc\x1b8qqq\x1b[s\x1b[5;1Hx\x1b[uy",
    ),
    (
        "saved with origin",
        "\x1b[2;4r\x1b[?6h\x1b[2;2H\x1b7\x1b[?6l\x1b[r\x1b[1;1Ha\x1b8b\x1b[1;1Hc\x1b[9;9Hd",
    ),
    (
        "alternate",
        "shell$ vi\r\nsecond\x1b[?1049h\x1b[2;3Hfull\x1b[41m\x1b[K\x1b[m\x1b[4;1Hx\x1b7\x1b[1;1Hy\x1b8z\x1b[?1049l!\r\nshell$ ",
    ),
    (
        "alternate 47",
        "ab\x1b[1m\x1b7\x1b[?47h\x1b[2Jxyz\x1b[?47l\x1b8cd\x1b[?1047h\x1b[Hq\x1b[?1047lr",
    ),
    (
        "alternate twice",
        "a\x1b[31;44m\x1b[?1049hb\x1b[?1049hc\x1b[?1049ld\x1b[?1049le",
    ),
    (
        "alternate pending",
        "aaaaaaaaaabbbbbbbbbb\x1b[?1049hxx\x1b[4;20Hy\x1b[?1049lzz",
    ),
    (
        "region",
        "1\r\n2\r\n3\r\n4\r\n5\x1b[2;4r\x1b[4;1Hx\r\ny\r\nz\x1bMq\x1b[2;1H\x1bMtop\x1b[6;1Hout\r\nside\x1b[rhome",
    ),
    (
        "origin",
        "\x1b[2;5r\x1b[?6hA\x1b[4;3HB\x1b[9;9HC\x1b[?6lD\x1b[?6h\x1b[2BE\x1b[3d\x1b[6nF",
    ),
    (
        "lines",
        "1\r\n2\r\n3\r\n4\x1b[2;1H\x1b[2Lnew\x1b[3M\x1b[41m\x1b[1;1H\x1b[L\x1b[m\x1b[2S\x1b[1Tz",
    ),
    (
        "cells",
        "abcdefghij\x1b[1;3H\x1b[2@XY\x1b[1;6H\x1b[3P\x1b[42m\x1b[2X\x1b[1;1H\x1b[P\x1b[m\x1b[1;4H한글\x1b[1;5H\x1b[P\x1b[1@",
    ),
    (
        "erase",
        "aaaaa\r\nbbbbb\r\nccccc\x1b[2;3H\x1b[1K\x1b[44m\x1b[K\x1b[J\x1b[1;2H\x1b[1J\x1b[m\x1b[2J\x1b[Hx\x1b[3J",
    ),
    (
        "tabs",
        "\x1b[3g\x1b[1;4H\x1bH\x1b[1;11H\x1bH\r\tx\ty\tz\x1b[2Zw\x1b[1;4H\x1b[g\r\tv\x1b[2I",
    ),
    (
        "charsets",
        "\x1b(0lqqk\x0e\x1b)0x\x0fx\x1b(Ax#\x1b*0\x1bnq\x1bNq\x1b+0\x1boq\x1bOqq\x0fq\x1b(Bq",
    ),
    ("charset in the middle", "q\x1b(0qqq\x1b[3bq\x1b(B~q\x1bN"),
    ("single shift", "\x1b*0\x1bNqq\x1b+0a\x1bOxx\x1bN\x1b[1mq"),
    (
        "insert",
        "abcdef\x1b[1;3H\x1b[4hXY한\x1b[Z\x1b[4lz\x1b[1;17H\x1b[4hlongtext\x1b[2b",
    ),
    ("newline mode", "a\x1b[20hb\nc\nd\x1b[20le\nf"),
    (
        "no autowrap",
        "\x1b[?7laaaaaaaaaabbbbbbbbbbccc\r\nd\x1b[3;19H한e한\x1b[?7hfg",
    ),
    (
        "reverse wrap",
        "\x1b[?45h\x1b[3;1Habc\x08\x08\x08\x08\x08x\x1b[?45l",
    ),
    (
        "repeat",
        "a\x1b[5bb\x1b[1m\x1b[3bc\x1b[2b\x1b[40b한\x1b[2be\u{301}\x1b[2b\x1b[3;20Hx\x1b[3b",
    ),
    (
        "cursor",
        "\x1b[?25l\x1b[5 qa\x1b[3;9H\x1b[2 q\x1b[?12h\x1b[?25h\x1b[0 q",
    ),
    (
        "modes",
        "\x1b[?1h\x1b=\x1b[?5h\x1b[?66l\x1b[?2004hx\x1b[?1004h\x1b[?1007l\x1b[?2031h\x1b[?1;5l\x1b>\x1b[?2004l\x1b[?1004ly",
    ),
    (
        "mouse",
        "\x1b[?1000h\x1b[?1002h\x1b[?1006ha\x1b[?1002l\x1b[?1000hb\x1b[?1003;1005;1015h\x1b[?1000lc\x1b[?1003l\x1b[?1006;1005;1015l\x1b[?9h",
    ),
    ("synchronised", "a\x1b[?2026hb\x1b[2Jc\x1b[?2026ld"),
    (
        "titles",
        "\x1b]0;both\x07\x1b[22;0t\x1b]2;window é\x1b\\\x1b]1;icon\x07\x1b[22;2t\x1b]2;\x07x\x1b[23;2t\x1b[23;0t\x1b[23t",
    ),
    (
        "untitled",
        "\x1b[22t\x1b[22;1t\x1b]2;a\x07\x1b[23;1t\x1b[23;2tx",
    ),
    (
        "directory",
        "\x1b]7;file://host/a/b%20c\x1b\\x\x1b]7;file://host/d\x07y\x1b]7;\x07",
    ),
    (
        "palette",
        "\x1b]4;1;#ff0000;2;rgb:00/11/22\x07a\x1b]10;#ffffff;#000000\x1b\\b\x1b]104;1\x07\x1b]12;red\x07c\x1b]111\x07\x1b]104\x07\x1b]4;300;#fff;x\x07",
    ),
    (
        "keyboard",
        "\x1b[>1u\x1b[>5ua\x1b[=2;2u\x1b[?1049h\x1b[>3ub\x1b[=8u\x1b[?1049lc\x1b[<u\x1b[?1049h\x1b[<9u\x1b[?1049l\x1b[<u",
    ),
    (
        "keys of xterm",
        "\x1b[>4;2m\x1b[>1;3mx\x1b[>4m\x1b[>4;1m\x1b[>4ny\x1b[>m",
    ),
    (
        "questions",
        "\x1b[c\x1b[>c\x1b[=c\x1b[5n\x1b[2;3H\x1b[6n\x1b[?6n\x1b[?7$p\x1b]10;?\x07\x1b]4;1;?\x07\x1b[>q\x1b[?u\x1bP$qm\x1b\\\x1bP+q544e\x1b\\\x1b[18tx",
    ),
    ("alignment", "a\x1b[2;3r\x1b#8x\x1b[3;3Hy"),
    (
        "soft reset",
        "\x1b[1;31m\x1b[2;4r\x1b[?6h\x1b[4h\x1b[?25l\x1b7ab\x1b[!pcd\x1b8e",
    ),
    (
        "reset",
        "1\r\n2\r\n3\r\n4\r\n5\r\n6\r\n7\x1b[1;31m\x1b]2;t\x07\x1b[?1049h\x1b[>1u\x1b[3gx\x1bcab\tc",
    ),
    (
        "history",
        "1\r\n2\r\n3\r\n4\r\n5\r\n6\r\n\x1b[32m7\x1b[m\r\naaaaaaaaaabbbbbbbbbbcccccccccc\r\n9\r\n10\r\n11\x1b[2J\x1b[H12\r\n\x1b[2;4r\x1b[4;1H\r\n\r\n13",
    ),
    (
        "history scrolled by hand",
        "1\r\n2\r\n3\r\n4\x1b[2S\x1b[1;3r\x1b[3;1H\r\n5\r\n6\x1b[r\x1b[1;1H\x1b[M\x1bM7",
    ),
    (
        "unfinished",
        "a\x1b\x1b[\x1b[1;2\x1b[3\nmb\x1b]2;t\x1b[mc\x1bPq#0;2;0;0;0~~\x1b\\d\x1b_Gf=1;AAAA\x1b\\e\x1bXsos\x1b\\f\x1b[1?zg\x1b[1 2qh\x1b[1\x18i\x1b%Gj",
    ),
    ("broken text", "a\x1b[1m\u{85}b\u{ad}c\u{200b}d\u{7f}e"),
];

/// Streams that are no text.
pub(crate) const BYTES: &[(&str, &[u8])] = &[
    (
        "torn characters",
        b"a\xe2\x82\xacb\xe2\x82c\xf0\x9f\x98\x80d\xf0\x9fe\xffg\xc3\x1b[1mh\xed\xa0\x80i\xe2",
    ),
    (
        "eight bits",
        b"a\x9b1mb\x80\xc2\x9bc\x1b]2;\xff\xc3\xa9\x07d",
    ),
];

/// Sequences with places for up to two numbers.
pub(crate) const SEQUENCES: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\t",
    "\x08",
    "\x0e",
    "\x0f",
    "\x1bD",
    "\x1bE",
    "\x1bM",
    "\x1bH",
    "\x1b7",
    "\x1b8",
    "\x1b(0",
    "\x1b(B",
    "\x1b)0",
    "\x1b*A",
    "\x1bn",
    "\x1bo",
    "\x1bN",
    "\x1b=",
    "\x1b>",
    "\x1b[{a}A",
    "\x1b[{a}B",
    "\x1b[{a}C",
    "\x1b[{a}D",
    "\x1b[{a}G",
    "\x1b[{a};{b}H",
    "\x1b[{a}d",
    "\x1b[{a}J",
    "\x1b[{a}K",
    "\x1b[{a}L",
    "\x1b[{a}M",
    "\x1b[{a}P",
    "\x1b[{a}@",
    "\x1b[{a}X",
    "\x1b[{a}S",
    "\x1b[{a}T",
    "\x1b[{a}b",
    "\x1b[{a}g",
    "\x1b[{a};{b}r",
    "\x1b[{a};{b}r",
    "\x1b[{a}m",
    "\x1b[3{a};4{b}m",
    "\x1b[{a};{b}m",
    "\x1b[38;5;{a};4:{b}m",
    "\x1b[m",
    "\x1b[48;2;{a};{b};9m",
    "\x1b[58:5:{a}m",
    "\x1b[4h",
    "\x1b[4l",
    "\x1b[20h",
    "\x1b[20l",
    "\x1b[?6h",
    "\x1b[?6l",
    "\x1b[?7h",
    "\x1b[?7l",
    "\x1b[?7l",
    "\x1b[?45h",
    "\x1b[?1049h",
    "\x1b[?1049l",
    "\x1b[?47h",
    "\x1b[?47l",
    "\x1b[?1048h",
    "\x1b[?100{a}h",
    "\x1b[?100{a}l",
    "\x1b[?{a}h",
    "\x1b[?{b}l",
    "\x1b[>{a}u",
    "\x1b[<{a}u",
    "\x1b[={a};{b}u",
    "\x1b[>4;{a}m",
    "\x1b[22;{a}t",
    "\x1b[23;{a}t",
    "\x1b]{a};t{b}\x07",
    "\x1b]8;id={a};u{b}\x1b\\",
    "\x1b]8;;\x07",
    "\x1b]4;{a};#12345{b}\x07",
    "\x1b]104;{a}\x07",
    "\x1b]1{a};red\x07",
    "\x1b]11{a}\x07",
    "\x1b[!p",
    "\x1bc",
    "\x1b#8",
    "\x1b[{a} q",
    "\x1b[{a}I",
    "\x1b[{a}Z",
    "\x1b[{a}E",
    "\x1b[{a}F",
    "\x1b[?2026h",
    "\x1b[{a}\n;{b}H",
    "\x1bP{a}q{b}\x1b\\",
    "\x1b_x\x1b\\",
    "\x1b[?9;{a}c",
];

/// What is printed between them.
pub(crate) const WORDS: &[&str] = &[
    "a",
    "bc",
    "def",
    "0123456789",
    "aaaaaaaaaaabbbbbbbbbbbcc",
    "q",
    "lqk",
    "한",
    "한글",
    "e\u{301}",
    "\u{301}",
    "😀",
    "👩\u{200d}👧",
    "x\r\ny\r\nz",
    " ",
    "            ",
    "\u{ad}",
    "\u{200b}",
    "#",
];
