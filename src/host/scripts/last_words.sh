last_words "$1" 2>&1
