#!/usr/bin/env bash
# Installs the skills of this repository for Claude Code: into ~/.claude/skills, or the directory
# that is given. Replaces what is there under the same name, leaves the rest alone.
set -euo pipefail
source=$(cd "$(dirname "$0")/../.claude/skills" && pwd)
target=${1:-${CLAUDE_CONFIG_DIR:-$HOME/.claude}/skills}

mkdir -p "$target"
for skill in "$source"/*/; do
    name=$(basename "$skill")
    rm -rf "${target:?}/$name"
    cp -R "$skill" "$target/$name"
    echo "installed $target/$name"
done
