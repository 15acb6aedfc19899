#compdef animaworks-tool
# zsh completion for animaworks-tool. To load it, after compinit: source <(animaworks-tool completion zsh)
#
# What the program answers is data: it goes to compadd, which quotes it, and nothing of it is ever evaluated.
_animaworks_tool() {
    local kind line
    local -a lines values shown
    lines=("${(@f)$(command animaworks-tool __complete zsh "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    kind=$lines[1]
    for line in "${(@)lines[2,-1]}"; do
        values+=("${line%%$'\t'*}")
        shown+=("${line/$'\t'/  -- }")
    done
    (( $#values )) && compadd -l -d shown -a values
    case $kind in
        files) _files ;;
        directories) _files -/ ;;
    esac
}
if [[ $funcstack[1] == _animaworks_tool ]]; then
    _animaworks_tool "$@"
else
    compdef _animaworks_tool animaworks-tool
fi
