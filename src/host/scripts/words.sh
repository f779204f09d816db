# Defines what is shown when something does not come up.

# NAME: the last lines of a pod's newest container, else those of the kubelet.
last_words() {
  case $1 in
    *.service) journalctl --no-pager -q -o short-iso -n 40 -u "$1" ;;
    *)
      find_tool crictl
      newest=
      [ -z "$tool" ] || newest=$(timeout 20 "$tool" ps -a -q -l --label "io.kubernetes.pod.name=$1" 2>/dev/null)
      if [ -n "$newest" ]; then
        # A program that does not know a flag tells all that it knows, hundreds of indented lines, before it says which.
        timeout 20 "$tool" logs --tail 600 "$newest" 2>&1 | sed -e '/^   /d' -e '/flags:$/d' -e '/^$/d' | tail -n 20
      else
        echo "no container of $1 was started; the kubelet says:"
        journalctl --no-pager -q -o cat -n 40 -u kubelet.service | grep -F -e "$1" -e rror | tail -n 10
      fi
      ;;
  esac
}
