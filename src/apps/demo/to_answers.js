() => { if (innerWidth <= 640) document.getElementById('answers').scrollIntoView(); }
