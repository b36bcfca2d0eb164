(caption) => caption === window.captionAtClick ? '' : caption
