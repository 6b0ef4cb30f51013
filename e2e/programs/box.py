#!/usr/bin/env python3
"""Programs that take input the way agents and editors do, to be typed into.

usage: box.py MODEL FILE

Every input that the program takes is appended to FILE as a line of JSON. The models:

  readline  GNU readline's way: a prompt, marked pastes, Enter takes the line
  raw       an editor of one line, byte by byte; knows no marked paste
  claude    a box with a frame, redrawn at every key; a long paste becomes a placeholder
  codex     a box that takes an Enter within 120 ms of a burst of characters for a new line
  codex-marked  the same, and takes marked pastes
  dialog    asks a question with numbered answers; whatever is typed is an answer
  password  reads a line without showing it
  deaf      reads nothing

A text that ends with [ask] makes claude and codex ask for a permission, as agents do: until 1 is
pressed whatever comes is an answer. It is taken once the question is on the screen, and so is
"[answered]" once the box is there again.
"""

import json
import os
import sys
import termios
import time
import tty

MODEL, FILE = sys.argv[1], sys.argv[2]
START, END = b"\x1b[200~", b"\x1b[201~"


def take(text):
    with open(FILE, "a", encoding="utf-8") as file:
        file.write(json.dumps(text) + "\n")


def show(text):
    os.write(1, text.encode())


class Keys:
    """What was typed: characters, Enter, and pastes as a whole."""

    def __init__(self):
        self.bytes = b""
        self.pasting = None

    def read(self):
        chunk = os.read(0, 4096)
        if not chunk:
            sys.exit(0)
        self.bytes += chunk
        found = []
        while self.bytes:
            if self.pasting is not None:
                at = self.bytes.find(END)
                if at < 0:
                    keep = max(0, len(self.bytes) - len(END) + 1)
                    self.pasting += self.bytes[:keep]
                    self.bytes = self.bytes[keep:]
                    break
                self.pasting += self.bytes[:at]
                self.bytes = self.bytes[at + len(END):]
                text = self.pasting.decode().replace("\r", "\n")
                found.append(("paste", text))
                self.pasting = None
                continue
            if self.bytes.startswith(b"\x1b"):
                if self.bytes.startswith(START):
                    self.bytes = self.bytes[len(START):]
                    self.pasting = b""
                    continue
                if len(self.bytes) < len(START) and START.startswith(self.bytes):
                    break
                take("STRAY ESCAPE")
                self.bytes = self.bytes[1:]
                continue
            size = 1
            first = self.bytes[0]
            if first >= 0xF0:
                size = 4
            elif first >= 0xE0:
                size = 3
            elif first >= 0xC0:
                size = 2
            if len(self.bytes) < size:
                break
            ch = self.bytes[:size].decode(errors="replace")
            self.bytes = self.bytes[size:]
            found.append(("enter", ch) if ch in "\r\n" else ("key", ch))
        return found


QUESTION = "\x1b[2J\x1b[HDo you want to proceed?\r\n \u276f 1. Yes\r\n   2. No\r\n"


def ask(text, draw):
    """Takes a text and asks; `draw` brings the box back."""
    show(QUESTION)
    take(text)
    while (answer := os.read(0, 4096)) != b"1":
        take("INTO THE DIALOG " + answer.decode(errors="replace"))
    show("\x1b[2J\x1b[H")
    draw()
    take("[answered]")


def raw():
    tty.setraw(0)


def line_editor(marked):
    raw()
    if marked:
        show("\x1b[?2004h")
    keys, text = Keys(), ""
    show("$ ")
    while True:
        for kind, what in keys.read():
            if kind == "enter":
                take(text)
                show("\r\nok %d\r\n$ " % len(text))
                text = ""
            elif what == "\x7f":
                text = text[:-1]
                show("\b \b")
            else:
                text += what
                show(what.replace("\n", "\r\n"))


class Box:
    """A frame with the text in it, drawn again at every change; the cursor is hidden."""

    def __init__(self):
        self.height = 0
        self.spins = 0
        show("\x1b[?2004h\x1b[?25l")

    def draw(self, text):
        size = os.get_terminal_size(1)
        inner = size.columns - 6
        rows = []
        for number, line in enumerate(text.split("\n")):
            pieces = [line[at:at + inner] for at in range(0, len(line), inner)] or [""]
            rows += [(">" if not number and not at else " ", piece) for at, piece in enumerate(pieces)]
        rows = rows[-(size.lines - 4):]
        out = "\x1b[%dA\r\x1b[J" % self.height if self.height else "\r\x1b[J"
        out += "\u256d" + "\u2500" * (inner + 4) + "\u256e\r\n"
        for mark, piece in rows:
            out += "\u2502 " + mark + " " + piece.ljust(inner) + " \u2502\r\n"
        out += "\u2570" + "\u2500" * (inner + 4) + "\u256f\r\n  ? for shortcuts"
        self.height = len(rows) + 2
        show(out)

    def above(self, text):
        out = "\x1b[%dA\r\x1b[J" % self.height
        self.height = 0
        show(out + text + "\r\n")


def claude():
    raw()
    box, keys, text, pastes = Box(), Keys(), "", {}
    box.draw(text)
    while True:
        for kind, what in keys.read():
            if kind == "enter":
                if not text:
                    continue
                whole = text
                for mark, paste in pastes.items():
                    whole = whole.replace(mark, paste)
                if whole.endswith("[ask]"):
                    text, pastes, box.height = "", {}, 0
                    ask(whole, lambda: box.draw(""))
                    continue
                take(whole)
                box.above("> " + text.replace("\n", "\r\n  ") + "\r\n\u25cf thinking")
                text, pastes = "", {}
            elif kind == "paste" and (len(what) > 800 or what.count("\n") > 2):
                mark = "[Pasted text #%d +%d lines]" % (len(pastes) + 1, what.count("\n"))
                pastes[mark] = what
                text += mark
            else:
                text += what
        box.draw(text)


def codex(marked):
    raw()
    if marked:
        show("\x1b[?2004h")
    keys, text, last, burst = Keys(), "", 0.0, 0

    def draw():
        shown = text.split("\n")
        show("\r\x1b[J\u203a " + "\r\n  ".join(shown))
        return len(shown)

    rows = draw()
    while True:
        found = keys.read()
        now = time.monotonic()
        if now - last > 0.12:
            burst = 0
        for kind, what in found:
            if kind == "enter":
                # Three characters within 8 ms are a burst; Enter is a part of it for 120 ms.
                if burst >= 3 and now - last < 0.12:
                    text += "\n"
                    last = now
                elif text.endswith("[ask]"):
                    whole, text, burst = text, "", 0
                    ask(whole, draw)
                    rows = 1
                elif text:
                    take(text)
                    if rows > 1:
                        show("\x1b[%dA" % (rows - 1))
                    show("\r\x1b[J  " + text.replace("\n", "\r\n  ") + "\r\n\r\n")
                    text, burst = "", 0
                    rows = 1
            else:
                text += what
                burst += len(what)
                last = now
        if rows > 1:
            show("\x1b[%dA" % (rows - 1))
        rows = draw()


def dialog():
    raw()
    show("\x1b[?2004hDo you want to proceed?\r\n \u276f 1. Yes\r\n   2. No\r\n")
    while True:
        take(os.read(0, 4096).decode(errors="replace"))


def password():
    state = termios.tcgetattr(0)
    state[3] &= ~termios.ECHO
    termios.tcsetattr(0, termios.TCSANOW, state)
    show("Password: ")
    while True:
        take(os.read(0, 4096).decode(errors="replace"))


def main():
    if MODEL == "deaf":
        raw()
        show("deaf")
        while True:
            time.sleep(1000)
    {
        "readline": lambda: line_editor(True),
        "raw": lambda: line_editor(False),
        "claude": claude,
        "codex": lambda: codex(False),
        "codex-marked": lambda: codex(True),
        "dialog": dialog,
        "password": password,
    }[MODEL]()


main()
