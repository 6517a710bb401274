// Package figure draws plots of one style into files.
package figure

import (
	"bytes"
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/tfbert/go/internal/file"
)

// 640 by 480 pixels at 96 dots an inch.
const (
	width  = 640 * vg.Inch / 96
	height = 480 * vg.Inch / 96
	margin = height / 40
)

// New makes an empty plot.
func New(title, x, y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = color.White
	p.Title.Text = title
	p.Title.Padding = margin
	p.X.Label.Text = x
	p.Y.Label.Text = y
	// Axes that meet at the corner, as far as the plot reaches.
	p.X.Padding, p.Y.Padding = 0, 0
	return p
}

// Save writes a plot, with a legend beside it if that is not nil, as "png" or "svg" to a file that
// is whole or not there.
func Save(p *plot.Plot, legend *plot.Legend, path, format string) error {
	beside := vg.Length(0)
	if legend != nil {
		beside = legend.Rectangle(draw.Canvas{}).Size().X + margin
	}
	image, err := draw.NewFormattedCanvas(width+beside, height, format)
	if err != nil {
		return err
	}
	page := draw.New(image)
	page.SetColor(p.BackgroundColor)
	page.Fill(page.Rectangle.Path())
	page = draw.Crop(page, margin, -margin, margin, -margin)
	if legend != nil {
		legend.Draw(draw.Crop(page, page.Size().X-beside+margin, 0, 0, 0))
		page = draw.Crop(page, 0, -beside, 0, 0)
	}
	p.Draw(page)

	var data bytes.Buffer
	if _, err := image.WriteTo(&data); err != nil {
		return err
	}
	out, err := file.Create(path)
	if err != nil {
		return err
	}
	defer out.Abort()
	if _, err := out.Write(data.Bytes()); err != nil {
		return err
	}
	return out.Commit()
}
