# fish completion for animaworks-tool. To load it: animaworks-tool completion fish | source
#
# What the program answers is data: fish quotes what it inserts, and nothing of it is ever evaluated.
function __animaworks_tool_complete
    set -l current (commandline -ct)
    set -l words (commandline -opc)
    set -l lines (command animaworks-tool __complete fish $words[2..-1] "$current" 2>/dev/null)
    switch "$lines[1]"
        case files
            __fish_complete_path "$current"
        case directories
            __fish_complete_directories "$current"
    end
    if test (count $lines) -gt 1
        printf '%s\n' $lines[2..-1]
    end
end
complete -c animaworks-tool -f -a '(__animaworks_tool_complete)'
