# bash completion for animaworks-tool. To load it: source <(animaworks-tool completion bash)
#
# What the program answers is data: it is read line by line and quoted, and nothing of it is ever evaluated.
_animaworks_tool() {
    local kind value rest
    COMPREPLY=()
    {
        IFS= read -r kind
        while IFS=$'\t' read -r value rest; do
            printf -v value %q "$value"
            COMPREPLY+=("$value")
        done
    } < <(command animaworks-tool __complete bash "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    case $kind in
        files) compopt -o default 2>/dev/null ;;
        directories) compopt -o dirnames 2>/dev/null ;;
    esac
}
complete -F _animaworks_tool animaworks-tool
